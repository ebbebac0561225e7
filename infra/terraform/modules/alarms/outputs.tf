output "topic_arn" {
  value = aws_sns_topic.this.arn
}

output "names" {
  value = sort(keys(local.alarms))
}
