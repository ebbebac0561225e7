output "target_group_arn" {
  value = aws_lb_target_group.api.arn
  # A target group that no listener uses yet refuses a service.
  depends_on = [aws_lb_listener.https]
}

output "arn_suffix" {
  value = aws_lb.this.arn_suffix
}

output "target_group_arn_suffix" {
  value = aws_lb_target_group.api.arn_suffix
}
