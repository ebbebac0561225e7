# What no plan may contain: each variable listed must be refused, with a message of its own.

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

# What the modules need besides.
variables {
  name                      = "prefect-test"
  vpc_id                    = "vpc-1"
  subnet_ids                = ["subnet-1", "subnet-2"]
  private_subnet_ids        = ["subnet-1", "subnet-2"]
  client_security_group_ids = {}
  log_retention_days        = 365
  kms_key_arn               = "arn:aws:kms:us-east-1:111122223333:key/the-key"
}

run "production_without_a_second_database" {
  command = plan

  module {
    source = "../modules/database"
  }

  variables {
    production          = true
    instance_class      = "db.t4g.medium"
    engine_version      = "13"
    multi_az            = false
    deletion_protection = false
    backup_days         = 3
    storage_gb          = 20
    max_storage_gb      = 20
    password            = "x"
    password_generation = 1
  }

  expect_failures = [var.engine_version, var.multi_az, var.deletion_protection, var.backup_days, var.max_storage_gb]
}

run "any_database_without_backups" {
  command = plan

  module {
    source = "../modules/database"
  }

  variables {
    production          = false
    instance_class      = "db.t4g.medium"
    multi_az            = false
    deletion_protection = false
    backup_days         = 0
    storage_gb          = 10
    max_storage_gb      = 100
    password            = "x"
    password_generation = 1
  }

  expect_failures = [var.backup_days, var.storage_gb]
}

run "production_with_a_single_redis" {
  command = plan

  module {
    source = "../modules/cache"
  }

  variables {
    production = true
    node_type  = "cache.t4g.small"
    nodes      = 1
    token      = "x"
  }

  expect_failures = [var.nodes]
}

run "a_network_too_small" {
  command = plan

  module {
    source = "../modules/network"
  }

  variables {
    cidr  = "10.0.0.0/24"
    zones = ["a"]
    nat   = "none"
  }

  expect_failures = [var.cidr, var.zones, var.nat]
}

run "kubernetes_open_to_the_internet" {
  command = plan

  module {
    source = "../modules/cluster"
  }

  variables {
    platform               = "nomad"
    cluster_endpoint_cidrs = ["0.0.0.0/0"]
  }

  expect_failures = [var.platform, var.cluster_endpoint_cidrs]
}

run "an_api_open_to_the_internet" {
  command = plan

  module {
    source = "../modules/load_balancer"
  }

  variables {
    name                     = "prefect-with-a-name-that-is-too-long"
    internal                 = false
    allowed_cidrs            = ["10.0.0.0/8", "0.0.0.0/0"]
    deletion_protection      = true
    domain                   = "prefect.example.com"
    zone_id                  = "Z1"
    certificate_arn          = "arn:aws:acm:us-east-1:111122223333:certificate/1"
    server_security_group_id = "sg-1"
    log_bucket               = "logs"
  }

  expect_failures = [var.name, var.allowed_cidrs]
}

run "an_api_open_to_nobody" {
  command = plan

  module {
    source = "../modules/load_balancer"
  }

  variables {
    internal                 = false
    allowed_cidrs            = []
    deletion_protection      = true
    domain                   = "prefect.example.com"
    zone_id                  = "Z1"
    certificate_arn          = "arn:aws:acm:us-east-1:111122223333:certificate/1"
    server_security_group_id = "sg-1"
    log_bucket               = "logs"
  }

  expect_failures = [var.allowed_cidrs]
}

run "a_task_that_fargate_does_not_have" {
  command = plan

  module {
    source = "../modules/service"
  }

  variables {
    name              = "api"
    image             = "server"
    command           = []
    cpu               = 256
    memory            = 4096
    count_min         = 1
    environment       = {}
    secrets           = {}
    secret_arns       = ["arn:aws:secretsmanager:us-east-1:111122223333:secret:x"]
    cluster_name      = "prefect-test"
    cluster_arn       = "arn:aws:ecs:us-east-1:111122223333:cluster/prefect-test"
    security_group_id = "sg-1"
  }

  expect_failures = [var.memory]
}

run "a_task_that_keeps_more_in_tmp_than_it_has_memory" {
  command = plan

  module {
    source = "../modules/service"
  }

  variables {
    name              = "api"
    image             = "server"
    command           = []
    cpu               = 256
    memory            = 1024
    cpu_architecture  = "POWER"
    tmp_mb            = 4096
    count_min         = 2
    count_max         = 1
    environment       = {}
    secrets           = {}
    secret_arns       = ["arn:aws:secretsmanager:us-east-1:111122223333:secret:x"]
    cluster_name      = "prefect-test"
    cluster_arn       = "arn:aws:ecs:us-east-1:111122223333:cluster/prefect-test"
    security_group_id = "sg-1"
  }

  expect_failures = [var.cpu_architecture, var.tmp_mb, var.count_max]
}

run "trust_in_more_than_one_repository_or_environment" {
  command = plan

  module {
    source = "../modules/github"
  }

  variables {
    repository   = "owner/*"
    environments = ["prod", "*"]
    policies     = {}
  }

  expect_failures = [var.repository, var.environments]
}

run "images_built_for_production_alone" {
  command = plan

  module {
    source = "../account"
  }

  variables {
    account_id        = "my-account"
    region            = "us-east-1"
    github_repository = "owner/name"
    push_environments = ["prod"]
  }

  expect_failures = [var.account_id, var.push_environments]
}

run "results_that_go_before_a_retry_needs_them" {
  command = plan

  module {
    source = "../modules/storage"
  }

  variables {
    results_days  = 1
    force_destroy = false
  }

  expect_failures = [var.results_days]
}

run "alarms_to_nowhere" {
  command = plan

  module {
    source = "../modules/alarms"
  }

  variables {
    emails               = ["the team"]
    database_identifier  = "prefect-test"
    database_free_bytes  = 1
    database_connections = 1
    cache_nodes          = []
    load_balancer        = null
    services             = {}
  }

  expect_failures = [var.emails]
}

run "a_production_that_is_none" {
  command = plan

  module {
    source = "../modules/platform"
  }

  variables {
    environment        = "Production"
    production         = true
    platform           = "ecs"
    domain             = "https://prefect.example.com/api"
    zone_id            = "Z1"
    images             = { server = "example.com/server:latest", worker = "example.com/worker:latest" }
    work_pools         = { analytics = { name = "x", type = "process" } }
    worker             = { cpu = 512, memory = 1024, count = 1 }
    worker_sizes       = { anlytics = { cpu = 1024 } }
    api                = { cpu = 512, memory = 1024, count = 1 }
    services           = { cpu = 512, memory = 1024 }
    database           = { instance_class = "db.t4g.medium", storage_gb = 20, max_storage_gb = 100, multi_az = true, backup_days = 30, deletion_protection = true, connections_alarm = 100 }
    cache              = { node_type = "cache.t4g.small", nodes = 2 }
    results_days       = 90
    internal           = true
    allowed_cidrs      = ["10.0.0.0/8"]
    cidr               = "10.0.0.0/16"
    zones              = ["a", "b"]
    nat                = "single"
    log_retention_days = 30
    alarm_emails       = []
    github             = { repository = "owner/name" }
    generate_secrets   = false
  }

  expect_failures = [
    var.environment, var.domain, var.images, var.worker_sizes,
    var.api, var.nat, var.log_retention_days, var.alarm_emails, var.given_secrets,
  ]
}

run "workers_that_cannot_be" {
  command = plan

  module {
    source = "../modules/platform"
  }

  variables {
    environment        = "test"
    production         = false
    platform           = "ecs"
    domain             = "prefect.example.com"
    zone_id            = "Z1"
    images             = { server = "example.com/server:latest", worker = "example.com/worker:latest" }
    worker_image       = "flows"
    work_pools         = { "Data Ingestion" = { name = "x", type = "process" } }
    worker             = { cpu = 512, memory = 1024, count = 1 }
    api                = { cpu = 512, memory = 1024, count = 1 }
    services           = { cpu = 512, memory = 1024 }
    database           = { instance_class = "db.t4g.medium", storage_gb = 20, max_storage_gb = 100, multi_az = true, backup_days = 30, deletion_protection = true, connections_alarm = 100 }
    cache              = { node_type = "cache.t4g.small", nodes = 2 }
    results_days       = 90
    internal           = true
    allowed_cidrs      = ["10.0.0.0/8"]
    cidr               = "10.0.0.0/16"
    zones              = ["a", "b"]
    nat                = "single"
    log_retention_days = 30
    alarm_emails       = []
    github             = { repository = "owner/name" }
  }

  expect_failures = [var.worker_image, var.work_pools]
}
