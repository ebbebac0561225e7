# What ECS tells of runs that have a task of their own. Workers of ecs pools read it from a queue: without it a run whose task
# was killed, or never found its image, would stay Running or Pending for ever.

locals {
  starts_tasks = local.ecs && anytrue([for pool in values(var.work_pools) : pool.type == "ecs"])
}

# One queue for all workers: any of them can take a message, each asks the same API.
resource "aws_sqs_queue" "events" {
  count = local.starts_tasks ? 1 : 0

  name                       = "${local.name}-ecs-events"
  sqs_managed_sse_enabled    = true   # SQS' own key: EventBridge can write without a right to ours
  message_retention_seconds  = 345600 # four days without a worker
  visibility_timeout_seconds = 300    # the worker's own

  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.unread[0].arn
    maxReceiveCount     = 50 # one try in five minutes: four hours without the API
  })
}

# What no worker could deal with, to look at.
resource "aws_sqs_queue" "unread" {
  count = local.starts_tasks ? 1 : 0

  name                      = "${local.name}-ecs-events-unread"
  sqs_managed_sse_enabled   = true
  message_retention_seconds = 1209600
}

resource "aws_sqs_queue_policy" "events" {
  count = local.starts_tasks ? 1 : 0

  queue_url = aws_sqs_queue.events[0].url
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "events.amazonaws.com" }
      Action    = "sqs:SendMessage"
      Resource  = aws_sqs_queue.events[0].arn
      Condition = { ArnEquals = { "aws:SourceArn" = aws_cloudwatch_event_rule.tasks[0].arn } }
    }]
  })
}

resource "aws_cloudwatch_event_rule" "tasks" {
  count = local.starts_tasks ? 1 : 0

  name        = "${local.name}-ecs-events"
  description = "Tasks of ${local.name} that change their state, for the workers of ecs pools"
  event_pattern = jsonencode({
    source      = ["aws.ecs"]
    detail-type = ["ECS Task State Change"]
    detail      = { clusterArn = [module.cluster.arn] }
  })
}

resource "aws_cloudwatch_event_target" "tasks" {
  count = local.starts_tasks ? 1 : 0

  rule = aws_cloudwatch_event_rule.tasks[0].name
  arn  = aws_sqs_queue.events[0].arn
}
