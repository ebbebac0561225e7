# What an AWS account has once, whatever runs in it: the state's bucket, the trust in GitHub, the images.

terraform {
  required_version = "~> 1.11"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "5.100.0"
    }
  }
}

provider "aws" {
  region              = var.region
  allowed_account_ids = [var.account_id]

  default_tags {
    tags = { Project = "prefect-platform", ManagedBy = "terraform" }
  }
}

data "aws_partition" "current" {}

resource "aws_kms_key" "state" {
  description             = "Terraform's state, container images"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "AccountDecides"
      Effect    = "Allow"
      Principal = { AWS = "arn:${data.aws_partition.current.partition}:iam::${var.account_id}:root" }
      Action    = "kms:*"
      Resource  = "*"
    }]
  })
}

resource "aws_kms_alias" "state" {
  name          = "alias/prefect-platform-state"
  target_key_id = aws_kms_key.state.key_id
}
