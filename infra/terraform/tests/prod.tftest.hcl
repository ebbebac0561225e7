mock_provider "aws" {
  source          = "./mocks"
  override_during = plan
}

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
  given_secrets    = { database-password = "db", redis-token = "redisredisredisredis", api-auth-string = "prefect:api" }
}

run "production_on_ecs" {
  command = plan
  module {
    source = "../environments/prod"
  }
  assert {
    condition     = output.platform.url == "https://prefect.example.com"
    error_message = "no"
  }
}
run "production_on_eks" {
  command = plan
  variables {
    platform = "eks"
  }
  module {
    source = "../environments/prod"
  }
  assert {
    condition     = output.platform.url == "https://prefect.example.com"
    error_message = "no"
  }
}
