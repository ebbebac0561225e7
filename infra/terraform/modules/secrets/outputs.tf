output "arns" {
  description = "By name: database-password, redis-token, api-auth-string. Known once they are written."
  value       = { for name, version in aws_secretsmanager_secret_version.this : name => version.arn }
}

# Ephemeral: only write-only arguments can take them.
output "database_password" {
  value     = var.generate ? ephemeral.aws_secretsmanager_secret_version.this["database-password"].secret_string : var.given["database-password"]
  ephemeral = true
  sensitive = true
}

output "api_auth_string" {
  value     = var.generate ? ephemeral.aws_secretsmanager_secret_version.this["api-auth-string"].secret_string : var.given["api-auth-string"]
  ephemeral = true
  sensitive = true
}

output "redis_token" {
  value     = data.aws_secretsmanager_secret_version.redis.secret_string
  sensitive = true
}
