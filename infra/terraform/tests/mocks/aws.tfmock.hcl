# What AWS would answer, where a plan cannot be read without it.

mock_data "aws_region" {
  defaults = { name = "us-east-1" }
}

mock_data "aws_caller_identity" {
  defaults = { account_id = "111122223333" }
}

mock_data "aws_partition" {
  defaults = { partition = "aws" }
}

mock_data "aws_secretsmanager_secret_version" {
  defaults = { secret_string = "the-redis-token-of-the-tests" }
}

mock_resource "aws_kms_key" {
  defaults = { arn = "arn:aws:kms:us-east-1:111122223333:key/the-key" }
}

mock_resource "aws_iam_role" {
  defaults = { arn = "arn:aws:iam::111122223333:role/the-role" }
}

mock_resource "aws_secretsmanager_secret" {
  defaults = { arn = "arn:aws:secretsmanager:us-east-1:111122223333:secret:the-secret" }
}

mock_resource "aws_cloudwatch_log_group" {
  defaults = { arn = "arn:aws:logs:us-east-1:111122223333:log-group:the-log" }
}

mock_resource "aws_ecs_cluster" {
  defaults = { arn = "arn:aws:ecs:us-east-1:111122223333:cluster/the-cluster" }
}

mock_resource "aws_eks_cluster" {
  defaults = { arn = "arn:aws:eks:us-east-1:111122223333:cluster/the-cluster" }
}

mock_resource "aws_ecs_task_definition" {
  defaults = { arn = "arn:aws:ecs:us-east-1:111122223333:task-definition/the-task:1" }
}

mock_resource "aws_service_discovery_service" {
  defaults = { arn = "arn:aws:servicediscovery:us-east-1:111122223333:service/the-service" }
}

mock_resource "aws_lb" {
  defaults = { arn = "arn:aws:elasticloadbalancing:us-east-1:111122223333:loadbalancer/app/the-balancer/1" }
}

mock_resource "aws_lb_target_group" {
  defaults = { arn = "arn:aws:elasticloadbalancing:us-east-1:111122223333:targetgroup/the-group/1" }
}

mock_resource "aws_wafv2_web_acl" {
  defaults = { arn = "arn:aws:wafv2:us-east-1:111122223333:regional/webacl/the-acl/1" }
}

mock_resource "aws_sns_topic" {
  defaults = { arn = "arn:aws:sns:us-east-1:111122223333:the-topic" }
}

mock_resource "aws_acm_certificate" {
  defaults = {
    arn = "arn:aws:acm:us-east-1:111122223333:certificate/the-certificate"
    domain_validation_options = [{
      domain_name           = "prefect.example.com"
      resource_record_name  = "_check.prefect.example.com"
      resource_record_type  = "CNAME"
      resource_record_value = "_check.acm.example.com"
    }]
  }
}

mock_resource "aws_acm_certificate_validation" {
  defaults = { certificate_arn = "arn:aws:acm:us-east-1:111122223333:certificate/the-certificate" }
}

mock_resource "aws_s3_bucket" {
  defaults = { arn = "arn:aws:s3:::the-bucket" }
}

mock_resource "aws_ecr_repository" {
  defaults = { arn = "arn:aws:ecr:us-east-1:111122223333:repository/the-repository" }
}

mock_resource "aws_db_instance" {
  defaults = { address = "the-database.example.com", arn = "arn:aws:rds:us-east-1:111122223333:db:the-database" }
}

mock_resource "aws_elasticache_replication_group" {
  defaults = { primary_endpoint_address = "the-redis.example.com" }
}

mock_resource "aws_secretsmanager_secret_version" {
  defaults = { arn = "arn:aws:secretsmanager:us-east-1:111122223333:secret:the-secret" }
}

mock_resource "aws_sqs_queue" {
  defaults = { arn = "arn:aws:sqs:us-east-1:111122223333:the-queue", url = "https://sqs.us-east-1.amazonaws.com/111122223333/the-queue" }
}

mock_resource "aws_cloudwatch_event_rule" {
  defaults = { arn = "arn:aws:events:us-east-1:111122223333:rule/the-rule" }
}
