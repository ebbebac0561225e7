# What AWS would answer, where a mock's random text would not do. Of terraform test; see tests/infra/test_terraform.py.
mock_data "aws_region" {
  defaults = { name = "us-east-1" }
}

mock_data "aws_caller_identity" {
  defaults = { account_id = "111122223333" }
}

mock_data "aws_partition" {
  defaults = { partition = "aws" }
}
