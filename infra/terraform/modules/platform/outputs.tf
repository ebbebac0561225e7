output "url" {
  value = local.url
}

output "api_url" {
  description = "PREFECT_API_URL of deploys and people."
  value       = "${local.url}/api"
}

output "auth_secret_arn" {
  description = "Where PREFECT_API_AUTH_STRING is."
  value       = local.auth_secret
}

output "server_secret_arn" {
  description = "Connections of PostgreSQL and Redis, for Kubernetes."
  value       = aws_secretsmanager_secret.server.arn
}

output "buckets" {
  value = module.storage.buckets
}

output "deploy_role_arn" {
  description = "For aws-actions/configure-aws-credentials in this environment's jobs."
  value       = module.github.role_arn
}

output "certificate_arn" {
  description = "For the ingress on EKS."
  value       = aws_acm_certificate_validation.this.certificate_arn
}

output "nat_addresses" {
  value = module.network.nat_addresses
}

output "cluster" {
  value = module.cluster.name
}

output "services" {
  description = "Of ECS, in the order of a roll: migrate first."
  value       = local.ecs ? concat(["migrate"], [for name in sort(keys(local.services)) : name if name != "migrate"]) : []
}

output "runs" {
  description = "ECS: the job variables of a work pool of type ecs, by the names of infra/work-pools/ecs.json. They go into the environment file as they are."
  value = !local.ecs ? null : {
    cluster                            = module.cluster.arn
    vpc_id                             = module.network.vpc_id
    task_role_arn                      = aws_iam_role.run.arn
    execution_role_arn                 = aws_iam_role.run_execution.arn
    prefect_api_auth_string_secret_arn = local.auth_secret
    network_configuration = {
      subnets        = module.network.private_subnet_ids
      securityGroups = [module.cluster.client_security_group_id]
      assignPublicIp = "DISABLED"
    }
    cloudwatch_logs_options = {
      awslogs-group        = aws_cloudwatch_log_group.runs.name
      awslogs-create-group = "false" # it is there, and the role may not make one
    }
  }
}

output "alarms" {
  value = module.alarms.names
}
