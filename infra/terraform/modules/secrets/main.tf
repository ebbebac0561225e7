# Passwords that nobody types. AWS makes them, Secrets Manager keeps them, and the state never sees them, with one exception:
# ElastiCache's provider resource takes its token only as an ordinary argument, so that one is in the (encrypted) state.

locals {
  secrets = {
    database-password = { prefix = "", description = "PostgreSQL: password of the user prefect" }
    redis-token       = { prefix = "", description = "Redis: AUTH token" }
    api-auth-string   = { prefix = "prefect:", description = "Prefect API: PREFECT_API_AUTH_STRING of workers, deploys and people" }
  }
}

ephemeral "aws_secretsmanager_random_password" "this" {
  provider = aws.passwords
  for_each = var.generate ? local.secrets : {}

  password_length     = 48
  exclude_punctuation = true # they become parts of URLs
}

resource "aws_secretsmanager_secret" "this" {
  #checkov:skip=CKV2_AWS_57:Rotating means a restart of every task. It is done on purpose: raise secrets_version, apply, roll (README.md).
  for_each = local.secrets

  name                    = "${var.name}/${each.key}"
  description             = each.value.description
  kms_key_id              = var.kms_key_arn
  recovery_window_in_days = var.recovery_days
}

resource "aws_secretsmanager_secret_version" "this" {
  for_each = local.secrets

  secret_id                = aws_secretsmanager_secret.this[each.key].id
  secret_string_wo         = var.generate ? "${each.value.prefix}${ephemeral.aws_secretsmanager_random_password.this[each.key].random_password}" : var.given[each.key]
  secret_string_wo_version = var.generation
}

# Read back, not handed on: a fresh random password at every run is not the one that was stored.
ephemeral "aws_secretsmanager_secret_version" "this" {
  provider = aws.passwords
  for_each = var.generate ? local.secrets : {}

  secret_id = aws_secretsmanager_secret_version.this[each.key].secret_id
}

data "aws_secretsmanager_secret_version" "redis" {
  secret_id = aws_secretsmanager_secret_version.this["redis-token"].secret_id

  depends_on = [aws_secretsmanager_secret_version.this] # after a rotation the new one
}
