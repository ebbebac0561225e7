# One kind of task on Fargate: its definition, roles, log, and, unless it only runs when called, the service that keeps it up.

locals {
  full_name = "${var.cluster_name}-${var.name}"

  environment = merge({ HOME = "/tmp", PREFECT_HOME = "/tmp/.prefect" }, var.environment)

  container = {
    name                   = var.name
    image                  = var.image
    command                = var.command
    essential              = true
    readonlyRootFilesystem = true
    stopTimeout            = var.stop_timeout
    environment            = [for key in sort(keys(local.environment)) : { name = key, value = local.environment[key] }]
    secrets                = [for key in sort(keys(var.secrets)) : { name = key, valueFrom = var.secrets[key] }]
    portMappings           = [for port in var.port[*] : { name = var.name, containerPort = port, protocol = "tcp" }]
    healthCheck = length(var.health) == 0 ? null : {
      command     = concat(["CMD", "python", "/opt/prefect-platform/health.py"], var.health)
      interval    = 30
      timeout     = 10
      retries     = 3
      startPeriod = 120
    }
    linuxParameters = {
      initProcessEnabled = true # reaps what killed flow runs leave
      capabilities       = { drop = ["ALL"], add = [] }
      # All that can be written to. It counts as memory of the task. Without mode or owner: it keeps the image's /tmp, open to all.
      tmpfs = [{ containerPath = "/tmp", size = var.tmp_mb, mountOptions = ["rw", "nosuid", "nodev"] }]
    }
    logConfiguration = {
      logDriver = "awslogs"
      options = {
        awslogs-group         = aws_cloudwatch_log_group.this.name
        awslogs-region        = data.aws_region.current.name
        awslogs-stream-prefix = var.name
      }
    }
  }
}

data "aws_region" "current" {}

data "aws_partition" "current" {}

resource "aws_cloudwatch_log_group" "this" {
  #checkov:skip=CKV_AWS_338:How long is var.log_retention_days; production refuses less than a year.
  name              = "/${var.cluster_name}/${var.name}"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.kms_key_arn
}

resource "aws_ecs_task_definition" "this" {
  family                   = local.full_name
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = var.cpu
  memory                   = var.memory
  execution_role_arn       = aws_iam_role.execution.arn
  task_role_arn            = aws_iam_role.task.arn
  container_definitions    = jsonencode([local.container])

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.cpu_architecture
  }
}

resource "aws_ecs_service" "this" {
  count = var.count_min > 0 ? 1 : 0

  name            = var.name
  cluster         = var.cluster_arn
  task_definition = aws_ecs_task_definition.this.arn
  desired_count   = var.count_min
  propagate_tags  = "SERVICE"

  # One of its kind is replaced, never doubled.
  deployment_minimum_healthy_percent = var.singleton ? 0 : 100
  deployment_maximum_percent         = var.singleton ? 100 : 200
  health_check_grace_period_seconds  = var.target_group_arn == null ? null : 120

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  capacity_provider_strategy {
    capacity_provider = var.spot ? "FARGATE_SPOT" : "FARGATE"
    weight            = 1
  }

  network_configuration {
    subnets          = var.subnet_ids
    security_groups  = [var.security_group_id]
    assign_public_ip = false
  }

  dynamic "load_balancer" {
    for_each = var.balanced ? [var.target_group_arn] : []

    content {
      target_group_arn = load_balancer.value
      container_name   = var.name
      container_port   = var.port
    }
  }

  dynamic "service_registries" {
    for_each = aws_service_discovery_service.this[*].arn

    content {
      registry_arn = service_registries.value
    }
  }

  # A release is rolled out by roll.py: after the migration, and watched. Counts are the autoscaling's below.
  lifecycle {
    ignore_changes = [task_definition, desired_count]
  }
}

resource "aws_service_discovery_service" "this" {
  count = var.discoverable ? 1 : 0

  name = var.name

  dns_config {
    namespace_id   = var.namespace_id
    routing_policy = "MULTIVALUE"

    dns_records {
      type = "A"
      ttl  = 10
    }
  }
}

resource "aws_appautoscaling_target" "this" {
  count = length(aws_ecs_service.this)

  service_namespace  = "ecs"
  scalable_dimension = "ecs:service:DesiredCount"
  resource_id        = "service/${var.cluster_name}/${aws_ecs_service.this[0].name}"
  min_capacity       = var.count_min
  max_capacity       = coalesce(var.count_max, var.count_min)
}

resource "aws_appautoscaling_policy" "cpu" {
  count = coalesce(var.count_max, var.count_min) > var.count_min ? 1 : 0

  name               = "cpu"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = aws_appautoscaling_target.this[0].service_namespace
  scalable_dimension = aws_appautoscaling_target.this[0].scalable_dimension
  resource_id        = aws_appautoscaling_target.this[0].resource_id

  target_tracking_scaling_policy_configuration {
    target_value       = 60
    scale_in_cooldown  = 300
    scale_out_cooldown = 60

    predefined_metric_specification {
      predefined_metric_type = "ECSServiceAverageCPUUtilization"
    }
  }
}
