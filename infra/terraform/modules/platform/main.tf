# One environment, whole: the other modules put together. environments/ only says how large.

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

data "aws_region" "current" {}

locals {
  name = "prefect-${var.environment}"
  url  = "https://${var.domain}"
  ecs  = var.platform == "ecs"
}

module "network" {
  source = "../network"

  name                = local.name
  cidr                = var.cidr
  zones               = var.zones
  nat                 = var.nat
  interface_endpoints = var.interface_endpoints
  log_retention_days  = var.log_retention_days
  kms_key_arn         = aws_kms_key.this.arn
}

module "secrets" {
  source    = "../secrets"
  providers = { aws = aws, aws.passwords = aws.passwords }

  name          = local.name
  generation    = var.secrets_version
  generate      = var.generate_secrets
  given         = var.given_secrets
  recovery_days = var.production ? 30 : 0
  kms_key_arn   = aws_kms_key.this.arn
}

module "cluster" {
  source = "../cluster"

  name                   = local.name
  platform               = var.platform
  kubernetes_version     = var.kubernetes_version
  cluster_endpoint_cidrs = var.cluster_endpoint_cidrs
  vpc_id                 = module.network.vpc_id
  private_subnet_ids     = module.network.private_subnet_ids
  log_retention_days     = var.log_retention_days
  kms_key_arn            = aws_kms_key.this.arn
}

module "database" {
  source = "../database"

  name                = local.name
  production          = var.production
  instance_class      = var.database.instance_class
  multi_az            = var.database.multi_az
  storage_gb          = var.database.storage_gb
  max_storage_gb      = var.database.max_storage_gb
  backup_days         = var.database.backup_days
  deletion_protection = var.database.deletion_protection
  password            = module.secrets.database_password
  password_generation = var.secrets_version
  vpc_id              = module.network.vpc_id
  subnet_ids          = module.network.data_subnet_ids
  log_retention_days  = var.log_retention_days
  kms_key_arn         = aws_kms_key.this.arn

  client_security_group_ids = merge(
    { server = module.cluster.server_security_group_id },
    var.warehouse_on_database && local.ecs ? { workers = module.cluster.client_security_group_id } : {},
  )
}

module "cache" {
  source = "../cache"

  name        = local.name
  production  = var.production
  node_type   = var.cache.node_type
  nodes       = var.cache.nodes
  token       = module.secrets.redis_token
  vpc_id      = module.network.vpc_id
  subnet_ids  = module.network.data_subnet_ids
  kms_key_arn = aws_kms_key.this.arn

  client_security_group_ids = { server = module.cluster.server_security_group_id }
}

module "storage" {
  source = "../storage"

  name               = local.name
  results_days       = var.results_days
  force_destroy      = !var.production
  log_retention_days = var.log_retention_days
  kms_key_arn        = aws_kms_key.this.arn
}

module "alarms" {
  source = "../alarms"

  name                 = local.name
  emails               = var.alarm_emails
  database_identifier  = module.database.identifier
  database_free_bytes  = var.database.storage_gb * pow(1024, 3) / 10
  database_connections = var.database.connections_alarm
  cache_nodes          = module.cache.member_clusters
  services             = local.ecs ? { for name, service in local.services : name => service.count_min if service.count_min > 0 } : {}
  kms_key_arn          = aws_kms_key.this.arn

  load_balancer = !local.ecs ? null : {
    arn_suffix              = module.load_balancer[0].arn_suffix
    target_group_arn_suffix = module.load_balancer[0].target_group_arn_suffix
    replicas                = var.api.count
  }
}

# One key for all of the environment's data at rest.
resource "aws_kms_key" "this" {
  description             = "Data of ${local.name}"
  enable_key_rotation     = true
  deletion_window_in_days = var.production ? 30 : 7
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "AccountDecides"
        Effect    = "Allow"
        Principal = { AWS = "arn:${data.aws_partition.current.partition}:iam::${data.aws_caller_identity.current.account_id}:root" }
        Action    = "kms:*"
        Resource  = "*"
      },
      {
        Sid       = "Logs"
        Effect    = "Allow"
        Principal = { Service = "logs.${data.aws_region.current.name}.amazonaws.com" }
        Action    = ["kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:Describe*"]
        Resource  = "*"
        Condition = { ArnLike = { "kms:EncryptionContext:aws:logs:arn" = "arn:${data.aws_partition.current.partition}:logs:${data.aws_region.current.name}:${data.aws_caller_identity.current.account_id}:*" } }
      },
      {
        Sid       = "Alarms"
        Effect    = "Allow"
        Principal = { Service = ["cloudwatch.amazonaws.com", "events.rds.amazonaws.com"] }
        Action    = ["kms:Decrypt", "kms:GenerateDataKey*"]
        Resource  = "*"
        Condition = { StringEquals = { "aws:SourceAccount" = data.aws_caller_identity.current.account_id } }
      },
    ]
  })
}

resource "aws_kms_alias" "this" {
  name          = "alias/${local.name}"
  target_key_id = aws_kms_key.this.key_id
}

# All that the server needs to reach its parts, in one secret: ECS takes its keys apart, Kubernetes takes it whole.
resource "aws_secretsmanager_secret" "server" {
  #checkov:skip=CKV2_AWS_57:It follows the passwords it is made of (modules/secrets).
  name                    = "${local.name}/server"
  description             = "Prefect server: connections of PostgreSQL and Redis, passwords included"
  kms_key_id              = aws_kms_key.this.arn
  recovery_window_in_days = var.production ? 30 : 0
}

resource "aws_secretsmanager_secret_version" "server" {
  secret_id = aws_secretsmanager_secret.server.id
  secret_string_wo = jsonencode({
    database_url    = "postgresql+asyncpg://prefect:${module.secrets.database_password}@${module.database.address}:5432/prefect?ssl=require"
    messaging_url   = "rediss://:${module.secrets.redis_token}@${module.cache.address}:6379/0"
    docket_url      = "rediss://:${module.secrets.redis_token}@${module.cache.address}:6379/1"
    api_auth_string = module.secrets.api_auth_string
  })
  # Another database, another Redis or new passwords: another number, and so written again.
  secret_string_wo_version = parseint(substr(sha256("${var.secrets_version} ${module.database.address} ${module.cache.address}"), 0, 7), 16)
}

# The certificate is checked by a record in the zone, and renewed without us. EKS' ingress names it too.
resource "aws_acm_certificate" "this" {
  domain_name       = var.domain
  validation_method = "DNS"

  lifecycle {
    create_before_destroy = true
  }
}

locals {
  validation = one(aws_acm_certificate.this.domain_validation_options)
}

resource "aws_route53_record" "validation" {
  zone_id         = var.zone_id
  name            = local.validation.resource_record_name
  type            = local.validation.resource_record_type
  records         = [local.validation.resource_record_value]
  ttl             = 300
  allow_overwrite = true
}

resource "aws_acm_certificate_validation" "this" {
  certificate_arn         = aws_acm_certificate.this.arn
  validation_record_fqdns = [aws_route53_record.validation.fqdn]
}
