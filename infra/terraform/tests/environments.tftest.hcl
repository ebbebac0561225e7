# Whole environments, planned with a mocked AWS. What is promised of these plans is read from them by tests/infra/test_terraform.py.

mock_provider "aws" {
  source          = "./mocks"
  override_during = plan
}

# Mocked providers know no ephemeral resources. This one is the real one, and is never asked: generate_secrets = false.
provider "aws" {
  alias                       = "passwords"
  region                      = "us-east-1"
  access_key                  = "none"
  secret_key                  = "none"
  skip_credentials_validation = true
  skip_requesting_account_id  = true
  skip_metadata_api_check     = true
}

variables {
  account_id    = "444455556666"
  region        = "us-east-1"
  domain        = "prefect.example.com"
  zone_id       = "Z0123456789"
  allowed_cidrs = ["10.0.0.0/8"]
  alarm_emails  = ["team@example.com"]
  github        = { repository = "owner@1/name@2" }
  images = {
    server = "example.com/server@sha256:0000000000000000000000000000000000000000000000000000000000000000"
    worker = "example.com/worker@sha256:0000000000000000000000000000000000000000000000000000000000000000"
  }
  generate_secrets = false
  given_secrets    = { database-password = "the-database-password", redis-token = "the-redis-token-of-the-tests", api-auth-string = "prefect:the-api-password" }
}

run "prod_on_ecs" {
  command = plan

  module {
    source = "../environments/prod"
  }

  assert {
    condition     = output.platform.services[0] == "migrate"
    error_message = "A roll begins with migrate, not with ${output.platform.services[0]}."
  }

  assert {
    condition     = output.platform.api_url == "https://prefect.example.com/api"
    error_message = "Deploys would look for the API at ${output.platform.api_url}."
  }
}

run "qa_on_eks" {
  command = plan

  module {
    source = "../environments/qa"
  }

  variables {
    platform               = "eks"
    cluster_endpoint_cidrs = ["192.0.2.0/24"]
    images                 = { server = "example.com/server:sha-1", worker = "example.com/worker:sha-1" }
  }

  assert {
    condition     = length(output.platform.services) == 0
    error_message = "On EKS infra/helm makes the services, not Terraform."
  }
}

# What only a work pool of type ecs brings. The environments that are shipped have none.
run "a_pool_of_type_ecs" {
  command = plan

  module {
    source = "../modules/platform"
  }

  # AWS' names, for the output runs.
  override_resource {
    target          = module.network.aws_vpc.this
    override_during = plan
    values          = { id = "vpc-of-the-test" }
  }

  override_resource {
    target          = module.network.aws_subnet.private
    override_during = plan
    values          = { id = "subnet-private" }
  }

  override_resource {
    target          = module.cluster.aws_security_group.ecs["client"]
    override_during = plan
    values          = { id = "sg-client" }
  }

  variables {
    environment        = "test"
    production         = false
    platform           = "ecs"
    work_pools         = { ingestion = { name = "test-ecs-pool", type = "ecs" }, analytics = { name = "test-process-pool", type = "process" } }
    worker             = { cpu = 512, memory = 2048, count = 1 }
    api                = { cpu = 512, memory = 2048, count = 1 }
    services           = { cpu = 512, memory = 1024 }
    database           = { instance_class = "db.t4g.medium", storage_gb = 20, max_storage_gb = 100, multi_az = false, backup_days = 3, deletion_protection = false, connections_alarm = 100 }
    cache              = { node_type = "cache.t4g.small", nodes = 1 }
    results_days       = 14
    internal           = true
    cidr               = "10.0.0.0/16"
    zones              = ["a", "b"]
    nat                = "single"
    log_retention_days = 30
  }
}

run "account" {
  command = plan

  module {
    source = "../account"
  }

  variables {
    github_repository = "owner@1/name@2"
  }

  assert {
    condition     = output.state_bucket == "prefect-platform-state-444455556666"
    error_message = "backend.hcl names another bucket than ${output.state_bucket}."
  }
}
