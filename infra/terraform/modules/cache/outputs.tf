output "member_clusters" {
  description = "Names of the nodes, by which CloudWatch knows them."
  value       = [for index in range(var.nodes) : format("%s-%03d", var.name, index + 1)]
}

output "address" {
  value = aws_elasticache_replication_group.this.primary_endpoint_address
}
