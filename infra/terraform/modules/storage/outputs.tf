output "buckets" {
  description = "By use: results, archive, logs."
  value       = { for use, bucket in aws_s3_bucket.this : use => bucket.bucket }

  # The load balancer tries to write as soon as it exists.
  depends_on = [aws_s3_bucket_policy.this]
}

output "policy" {
  description = "For the roles of what runs flows."
  value       = local.policy
}
