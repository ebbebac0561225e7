output "name" {
  value = var.name
}

output "family" {
  value = aws_ecs_task_definition.this.family
}

output "role_arns" {
  description = "Whoever starts this task must be allowed to hand these on."
  value       = [aws_iam_role.execution.arn, aws_iam_role.task.arn]
}

output "container" {
  description = "The container definition, for tests and for reading."
  value       = local.container
}

output "role_names" {
  value = { execution = aws_iam_role.execution.name, task = aws_iam_role.task.name }
}
