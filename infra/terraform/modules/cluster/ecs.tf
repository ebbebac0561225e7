resource "aws_ecs_cluster" "this" {
  count = local.ecs

  name = var.name

  setting {
    name  = "containerInsights"
    value = "enabled" # the alarms on missing tasks need its figures
  }
}

resource "aws_ecs_cluster_capacity_providers" "this" {
  count = local.ecs

  cluster_name       = aws_ecs_cluster.this[0].name
  capacity_providers = ["FARGATE", "FARGATE_SPOT"]
}

# Workers reach the API by api.<name>.internal, not over the load balancer.
resource "aws_service_discovery_private_dns_namespace" "this" {
  count = local.ecs

  name        = "${var.name}.internal"
  description = "Prefect's services among themselves"
  vpc         = var.vpc_id
}

# server: API, background services, migration. client: workers, runs and the exporter, which only talk to the API.
resource "aws_security_group" "ecs" {
  #checkov:skip=CKV2_AWS_5:They are attached by the services, in another module.
  for_each = local.ecs == 1 ? { server = "Prefect's API and background services", client = "Workers, their runs, the exporter" } : {}

  name        = "${var.name}-${each.key}"
  description = each.value
  vpc_id      = var.vpc_id

  tags = { Name = "${var.name}-${each.key}" }
}

resource "aws_vpc_security_group_egress_rule" "ecs" {
  for_each = aws_security_group.ecs

  security_group_id = each.value.id
  description       = "Images, AWS, data providers, Git"
  ip_protocol       = "-1"
  cidr_ipv4         = "0.0.0.0/0"
}

resource "aws_vpc_security_group_ingress_rule" "api" {
  for_each = aws_security_group.ecs

  security_group_id            = aws_security_group.ecs["server"].id
  description                  = "API from ${each.key}"
  referenced_security_group_id = each.value.id
  ip_protocol                  = "tcp"
  from_port                    = 4200
  to_port                      = 4200
}
