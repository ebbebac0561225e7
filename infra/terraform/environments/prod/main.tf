# Production. Only what differs from QA is here and in terraform.tfvars; the rest is modules/platform.

terraform {
  required_version = "~> 1.11"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "5.100.0"
    }
  }

  # Bucket and region come from backend.hcl. The lock is an object beside the state: two applies at once are refused.
  backend "s3" {
    key          = "prefect-platform/prod.tfstate"
    encrypt      = true
    use_lockfile = true
  }
}

provider "aws" {
  region              = var.region
  allowed_account_ids = [var.account_id]

  default_tags {
    tags = { Project = "prefect-platform", Environment = "prod", ManagedBy = "terraform" }
  }
}

# Makes and reads back the passwords (modules/secrets).
provider "aws" {
  alias               = "passwords"
  region              = var.region
  allowed_account_ids = [var.account_id]
}

locals {
  # What the deploy makes of this file is what the workers here serve.
  declared = yamldecode(file("${path.module}/../../../../environments/prod.yaml"))
}

module "platform" {
  source    = "../../modules/platform"
  providers = { aws = aws, aws.passwords = aws.passwords }

  environment  = "prod"
  production   = true
  platform     = var.platform
  domain       = var.domain
  zone_id      = var.zone_id
  images       = var.images
  work_pools   = { for key, pool in local.declared.work_pools : key => { name = pool.name, type = pool.type } }
  worker_image = local.declared.source.strategy == "image" ? "flows" : "worker"

  api          = { cpu = 1024, memory = 2048, count = 2, count_max = 4 }
  services     = { cpu = 512, memory = 1024 }
  worker       = { cpu = 1024, memory = 4096, count = 1 }
  worker_sizes = { ingestion = { cpu = 2048, memory = 8192 } }

  database = {
    instance_class      = "db.m7g.large"
    storage_gb          = 100
    max_storage_gb      = 500
    multi_az            = true
    backup_days         = 30
    deletion_protection = true
    connections_alarm   = 600
  }
  cache = { node_type = "cache.t4g.medium", nodes = 2 }

  cidr  = "10.40.0.0/16"
  zones = ["a", "b", "c"]
  nat   = "per_zone"

  internal             = var.internal
  allowed_cidrs        = var.allowed_cidrs
  open_to_the_internet = var.open_to_the_internet

  results_days         = 90
  log_retention_days   = 365
  result_storage_block = var.result_storage_block
  alarm_emails         = var.alarm_emails
  github               = var.github

  cluster_endpoint_cidrs = var.cluster_endpoint_cidrs
  secrets_version        = var.secrets_version
  generate_secrets       = var.generate_secrets
  given_secrets          = var.given_secrets
}
