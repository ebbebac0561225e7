# The role that a GitHub workflow takes on, without a key: only jobs of this repository that run in this GitHub environment.

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

locals {
  issuer   = "token.actions.githubusercontent.com"
  provider = "arn:${data.aws_partition.current.partition}:iam::${data.aws_caller_identity.current.account_id}:oidc-provider/${local.issuer}"
}

resource "aws_iam_role" "this" {
  name                 = var.name
  description          = "Of GitHub: ${var.repository}, environments ${join(", ", var.environments)}"
  max_session_duration = 3600
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRoleWithWebIdentity"
      Principal = { Federated = local.provider }
      Condition = {
        StringEquals = {
          "${local.issuer}:aud" = "sts.amazonaws.com"
          "${local.issuer}:sub" = [for environment in var.environments : "repo:${var.repository}:environment:${environment}"]
        }
      }
    }]
  })
}

resource "aws_iam_role_policy" "this" {
  for_each = var.policies

  name   = each.key
  role   = aws_iam_role.this.id
  policy = each.value
}
