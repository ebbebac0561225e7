# Prefect itself on ECS: API, background services, migration, a worker for each work pool, exporter.

locals {
  server_image = var.images.server
  worker_image = var.worker_image == "flows" ? var.images.flows : var.images.worker
  internal_api = "http://api.${local.name}.internal:4200/api"

  # Of the version, which has the secret's: a task that starts before its secret is written does not start.
  server_secret = aws_secretsmanager_secret_version.server.arn
  auth_secret   = module.secrets.arns["api-auth-string"]

  server_environment = {
    PREFECT_SERVER_DATABASE_MIGRATE_ON_START            = "false" # the task migrate does it, once
    PREFECT_SERVER_REGISTER_BLOCKS_ON_START             = "false" # the same
    PREFECT_SERVER_EVENTS_MESSAGING_BROKER              = "prefect_redis.messaging"
    PREFECT_SERVER_EVENTS_MESSAGING_CACHE               = "prefect_redis.messaging"
    PREFECT_SERVER_EVENTS_CAUSAL_ORDERING               = "prefect_redis.ordering"
    PREFECT_SERVER_EVENTS_EXPIRED_BUCKET_BUFFER         = "PT15M" # silent runs are found also after Redis restarted: docs/high-availability.md
    PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE            = "prefect_redis.lease_storage"
    PREFECT_SERVER_WORKER_CHANNEL_CLEANUP_QUEUE_STORAGE = "prefect_redis.cleanup_queue"
    PREFECT_SERVER_METRICS_ENABLED                      = "true"
    PREFECT_SERVER_UI_API_URL                           = "${local.url}/api"
    PREFECT_SERVER_ANALYTICS_ENABLED                    = "false"
    PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT          = "false"
    DO_NOT_TRACK                                        = "1"
  }
  server_secrets = {
    PREFECT_SERVER_DATABASE_CONNECTION_URL = "${local.server_secret}:database_url::"
    PREFECT_REDIS_MESSAGING_URL            = "${local.server_secret}:messaging_url::"
    PREFECT_REDIS_WORKER_CLEANUP_QUEUE_URL = "${local.server_secret}:messaging_url::"
    PREFECT_SERVER_DOCKET_URL              = "${local.server_secret}:docket_url::"
    PREFECT_SERVER_API_AUTH_STRING         = "${local.server_secret}:api_auth_string::"
  }

  client_environment = { PREFECT_API_URL = local.internal_api, DO_NOT_TRACK = "1" }
  client_secrets     = { PREFECT_API_AUTH_STRING = local.auth_secret }

  server = {
    image             = local.server_image
    environment       = local.server_environment
    secrets           = local.server_secrets
    secret_arns       = [local.server_secret]
    security_group_id = module.cluster.server_security_group_id
  }
  client = {
    image             = local.server_image
    environment       = local.client_environment
    secrets           = local.client_secrets
    secret_arns       = [local.auth_secret]
    security_group_id = module.cluster.client_security_group_id
  }

  services = merge(
    {
      api = merge(local.server, {
        command   = ["prefect", "server", "start", "--host", "0.0.0.0", "--port", "4200", "--no-services"]
        cpu       = var.api.cpu
        memory    = var.api.memory
        count_min = var.api.count
        count_max = var.api.count_max
        port      = 4200
        health    = ["http://127.0.0.1:4200/api/health"] # not /ready: a failover of PostgreSQL is no reason to kill every replica
      })
      services = merge(local.server, {
        command   = ["prefect", "server", "services", "start"]
        cpu       = var.services.cpu
        memory    = var.services.memory
        count_min = 1
        singleton = true
        health    = ["connected", "5432", "6379"]
      })
      migrate = merge(local.server, {
        command   = ["sh", "-ec", "prefect server database upgrade --yes && exec python /opt/prefect-platform/blocks.py"]
        cpu       = 512
        memory    = 1024
        count_min = 0
      })
      exporter = merge(local.client, {
        command      = ["python", "/opt/prefect-platform/infra/monitoring/exporter"]
        cpu          = 256
        memory       = 512
        count_min    = 1
        singleton    = true
        port         = 9464
        health       = ["http://127.0.0.1:9464/metrics"]
        discoverable = true
      })
    },
    { for key, pool in var.work_pools : "worker-${key}" => merge(local.client, {
      image        = local.worker_image
      command      = ["prefect", "worker", "start", "--pool", pool.name, "--type", pool.type, "--no-create-pool-if-not-found", "--install-policy", "never", "--with-healthcheck"]
      cpu          = coalesce(try(var.worker_sizes[key].cpu, null), var.worker.cpu)
      memory       = coalesce(try(var.worker_sizes[key].memory, null), var.worker.memory)
      count_min    = var.worker.count
      spot         = var.worker.spot
      stop_timeout = 120
      tmp_mb       = 1024
      port         = 8081
      health       = ["worker"]
      environment = merge(
        local.client_environment,
        local.flow_environment,
        { PREFECT_CLIENT_METRICS_ENABLED = "true", PREFECT_CLIENT_METRICS_PORT = "8081" },
        pool.type == "ecs" ? { PREFECT_INTEGRATIONS_AWS_ECS_OBSERVER_SQS_QUEUE_NAME = one(aws_sqs_queue.events[*].name) } : {},
      )
      task_policies = merge(
        { storage = module.storage.policy },
        pool.type == "ecs" ? { runs = local.start_tasks } : {},
      )
    }) },
  )

  # What flows find in their environment.
  flow_environment = merge({
    PREFECT_CLIENT_RETRY_EXTRA_CODES   = "500" # what the API answers while Redis fails over; see docs/high-availability.md
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY  = "30"  # so that a run whose process is gone is noticed (infra/ha)
    PREFECT_RESULTS_DEFAULT_SERIALIZER = "json"
    RESULTS_BUCKET                     = module.storage.buckets["results"]
    ARCHIVE_BUCKET                     = module.storage.buckets["archive"]
    AWS_DEFAULT_REGION                 = data.aws_region.current.name
  }, var.result_storage_block == null ? {} : { PREFECT_RESULTS_DEFAULT_STORAGE_BLOCK = var.result_storage_block })

  # Work pools of type ecs: their worker starts a task for each run, in this cluster, with the two roles of runs, and hears what
  # becomes of it (events.tf).
  start_tasks = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect   = "Allow"
        Action   = ["ecs:RegisterTaskDefinition", "ecs:DeregisterTaskDefinition", "ecs:DescribeTaskDefinition", "ecs:ListTaskDefinitions", "ec2:DescribeSubnets", "ec2:DescribeVpcs"]
        Resource = "*" # these actions know no resources, or not before the task definition exists
      },
      {
        Effect    = "Allow"
        Action    = ["ecs:RunTask", "ecs:StopTask", "ecs:DescribeTasks"]
        Resource  = "*"
        Condition = { ArnEquals = { "ecs:cluster" = module.cluster.arn } }
      },
      {
        # Prefect tags every task that it starts. This action does not know the cluster, only what it is part of.
        Effect    = "Allow"
        Action    = "ecs:TagResource"
        Resource  = "*"
        Condition = { StringEquals = { "ecs:CreateAction" = "RunTask" } }
      },
      {
        Effect   = "Allow"
        Action   = ["sqs:GetQueueUrl", "sqs:ReceiveMessage", "sqs:ChangeMessageVisibility", "sqs:DeleteMessage"]
        Resource = one(aws_sqs_queue.events[*].arn)
      },
      { Effect = "Allow", Action = ["logs:GetLogEvents"], Resource = "${aws_cloudwatch_log_group.runs.arn}:*" },
      {
        Effect    = "Allow"
        Action    = "iam:PassRole"
        Resource  = [aws_iam_role.run.arn, aws_iam_role.run_execution.arn]
        Condition = { StringEquals = { "iam:PassedToService" = "ecs-tasks.amazonaws.com" } }
      },
    ]
  })
}

module "load_balancer" {
  source = "../load_balancer"
  count  = local.ecs ? 1 : 0

  name                     = local.name
  internal                 = var.internal
  allowed_cidrs            = var.allowed_cidrs
  open_to_the_internet     = var.open_to_the_internet
  deletion_protection      = var.production
  domain                   = var.domain
  zone_id                  = var.zone_id
  certificate_arn          = aws_acm_certificate_validation.this.certificate_arn
  server_security_group_id = module.cluster.server_security_group_id
  vpc_id                   = module.network.vpc_id
  subnet_ids               = var.internal ? module.network.private_subnet_ids : module.network.public_subnet_ids
  log_bucket               = module.storage.buckets["logs"]
  log_retention_days       = var.log_retention_days
  kms_key_arn              = aws_kms_key.this.arn
}

module "service" {
  source   = "../service"
  for_each = { for name, service in local.services : name => service if local.ecs }

  name              = each.key
  image             = each.value.image
  command           = each.value.command
  cpu               = each.value.cpu
  memory            = each.value.memory
  cpu_architecture  = var.cpu_architecture
  count_min         = each.value.count_min
  count_max         = lookup(each.value, "count_max", null)
  singleton         = lookup(each.value, "singleton", false)
  spot              = lookup(each.value, "spot", false)
  stop_timeout      = lookup(each.value, "stop_timeout", 30)
  tmp_mb            = lookup(each.value, "tmp_mb", 256)
  environment       = each.value.environment
  secrets           = each.value.secrets
  secret_arns       = each.value.secret_arns
  port              = lookup(each.value, "port", null)
  health            = lookup(each.value, "health", [])
  balanced          = each.key == "api"
  target_group_arn  = each.key == "api" ? module.load_balancer[0].target_group_arn : null
  discoverable      = contains(["api", "exporter"], each.key)
  namespace_id      = module.cluster.namespace_id
  task_policies     = lookup(each.value, "task_policies", {})
  cluster_name      = module.cluster.name
  cluster_arn       = module.cluster.arn
  subnet_ids        = module.network.private_subnet_ids
  security_group_id = each.value.security_group_id

  log_retention_days = var.log_retention_days
  kms_key_arn        = aws_kms_key.this.arn
}

# Prometheus, wherever it runs in this VPC, reads exporter and workers.
resource "aws_vpc_security_group_ingress_rule" "metrics" {
  for_each = local.ecs ? { exporter = 9464, worker = 8081 } : {}

  security_group_id = module.cluster.client_security_group_id
  description       = "Metrics of ${each.key}"
  cidr_ipv4         = var.cidr
  ip_protocol       = "tcp"
  from_port         = each.value
  to_port           = each.value
}
