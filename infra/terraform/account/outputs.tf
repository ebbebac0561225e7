output "state_bucket" {
  description = "For backend.hcl of every environment in this account."
  value       = aws_s3_bucket.state.bucket
}

output "state_key_arn" {
  value = aws_kms_key.state.arn
}

output "repositories" {
  description = "Where to push, by image."
  value       = { for name, repository in aws_ecr_repository.this : name => repository.repository_url }
}

output "push_role_arn" {
  description = "For aws-actions/configure-aws-credentials in the job that builds images."
  value       = module.push.role_arn
}
