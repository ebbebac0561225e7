# What AWS itself sees go wrong, to one topic. What Prefect sees (late runs, pools without a worker) is infra/monitoring's.

resource "aws_sns_topic" "this" {
  name              = "${var.name}-alarms"
  kms_master_key_id = var.kms_key_arn
}

resource "aws_sns_topic_subscription" "email" {
  for_each = var.emails

  topic_arn = aws_sns_topic.this.arn
  protocol  = "email" # each address gets a mail, and must confirm it
  endpoint  = each.key
}

locals {
  database = { DBInstanceIdentifier = var.database_identifier }

  alarms = merge(
    {
      database-cpu         = { namespace = "AWS/RDS", metric = "CPUUtilization", dimensions = local.database, statistic = "Average", above = 85, minutes = 15, says = "PostgreSQL is busy: the API gets slow, runs get late." }
      database-storage     = { namespace = "AWS/RDS", metric = "FreeStorageSpace", dimensions = local.database, statistic = "Minimum", below = var.database_free_bytes, minutes = 15, says = "PostgreSQL's volume fills up. It grows by itself up to max_storage_gb, once in six hours." }
      database-memory      = { namespace = "AWS/RDS", metric = "FreeableMemory", dimensions = local.database, statistic = "Minimum", below = 200 * 1024 * 1024, minutes = 15, says = "PostgreSQL has hardly any memory left." }
      database-connections = { namespace = "AWS/RDS", metric = "DatabaseConnections", dimensions = local.database, statistic = "Maximum", above = var.database_connections, minutes = 5, says = "PostgreSQL is near its limit of connections: the next replica may get none." }
    },
    merge([for node in var.cache_nodes : {
      "${node}-memory" = { namespace = "AWS/ElastiCache", metric = "DatabaseMemoryUsagePercentage", dimensions = { CacheClusterId = node }, statistic = "Maximum", above = 80, minutes = 10, says = "Redis fills up. It evicts nothing: once full it refuses events and leases." }
      "${node}-cpu"    = { namespace = "AWS/ElastiCache", metric = "EngineCPUUtilization", dimensions = { CacheClusterId = node }, statistic = "Average", above = 80, minutes = 15, says = "Redis is busy." }
    }]...),
    merge([for load_balancer in var.load_balancer[*] : {
      api-errors    = { namespace = "AWS/ApplicationELB", metric = "HTTPCode_Target_5XX_Count", dimensions = { LoadBalancer = load_balancer.arn_suffix }, statistic = "Sum", above = 20, minutes = 5, says = "The API answers with errors." }
      api-unhealthy = { namespace = "AWS/ApplicationELB", metric = "HealthyHostCount", dimensions = { LoadBalancer = load_balancer.arn_suffix, TargetGroup = load_balancer.target_group_arn_suffix }, statistic = "Minimum", below = load_balancer.replicas, minutes = 5, missing_is_bad = true, says = "A replica of the API is missing; with none, nothing runs." }
      api-slow      = { namespace = "AWS/ApplicationELB", metric = "TargetResponseTime", dimensions = { LoadBalancer = load_balancer.arn_suffix }, statistic = "p95", above = 5, minutes = 15, says = "One in twenty calls of the API takes longer than five seconds." }
    }]...),
    { for name, count in var.services :
      "service-${name}" => { namespace = "ECS/ContainerInsights", metric = "RunningTaskCount", dimensions = { ClusterName = var.name, ServiceName = name }, statistic = "Minimum", below = count, minutes = 10, missing_is_bad = true, says = "Tasks of ${name} are missing." }
    },
  )
}

resource "aws_cloudwatch_metric_alarm" "this" {
  for_each = local.alarms

  alarm_name        = "${var.name}-${each.key}"
  alarm_description = "${each.value.says} Runbook: docs/runbook.md."

  namespace          = each.value.namespace
  metric_name        = each.value.metric
  dimensions         = each.value.dimensions
  statistic          = startswith(each.value.statistic, "p") ? null : each.value.statistic
  extended_statistic = startswith(each.value.statistic, "p") ? each.value.statistic : null

  comparison_operator = can(each.value.below) ? "LessThanThreshold" : "GreaterThanThreshold"
  threshold           = can(each.value.below) ? each.value.below : each.value.above
  period              = 60
  evaluation_periods  = each.value.minutes
  datapoints_to_alarm = each.value.minutes
  treat_missing_data  = can(each.value.missing_is_bad) ? "breaching" : "missing"

  alarm_actions             = [aws_sns_topic.this.arn]
  ok_actions                = [aws_sns_topic.this.arn]
  insufficient_data_actions = []
}

# RDS tells of itself: failovers, failed backups, a full volume.
resource "aws_db_event_subscription" "this" {
  name             = var.name
  sns_topic        = aws_sns_topic.this.arn
  source_type      = "db-instance"
  source_ids       = [var.database_identifier]
  event_categories = ["availability", "backup", "failover", "failure", "low storage", "maintenance", "notification", "recovery"]
}

resource "aws_sns_topic_policy" "this" {
  arn = aws_sns_topic.this.arn
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = ["cloudwatch.amazonaws.com", "events.rds.amazonaws.com"] }
      Action    = "sns:Publish"
      Resource  = aws_sns_topic.this.arn
      Condition = { StringEquals = { "aws:SourceAccount" = data.aws_caller_identity.current.account_id } }
    }]
  })
}

data "aws_caller_identity" "current" {}
