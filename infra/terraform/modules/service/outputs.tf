output "role_arns" {
  description = "Whoever starts this task must be allowed to hand these on."
  value       = [aws_iam_role.execution.arn, aws_iam_role.task.arn]
}
