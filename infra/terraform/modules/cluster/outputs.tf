output "name" {
  value = var.name
}

# With its capacity providers: a service that asks for one before the cluster has it is refused.

output "arn" {
  value = one(concat(aws_ecs_cluster.this[*].arn, aws_eks_cluster.this[*].arn))

  depends_on = [aws_ecs_cluster_capacity_providers.this]
}

output "namespace_id" {
  description = "ECS: where services register their names."
  value       = one(aws_service_discovery_private_dns_namespace.this[*].id)
}

output "server_security_group_id" {
  description = "Who talks to PostgreSQL and Redis: the server's tasks, or every pod of the cluster."
  value       = var.platform == "ecs" ? aws_security_group.ecs["server"].id : aws_eks_cluster.this[0].vpc_config[0].cluster_security_group_id
}

output "client_security_group_id" {
  description = "Workers and their runs."
  value       = var.platform == "ecs" ? aws_security_group.ecs["client"].id : aws_eks_cluster.this[0].vpc_config[0].cluster_security_group_id
}
