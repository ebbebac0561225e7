# Where the containers run: ECS on Fargate, or EKS. The security groups are made here, before what they may reach.

locals {
  ecs = var.platform == "ecs" ? 1 : 0
  eks = var.platform == "eks" ? 1 : 0
}

data "aws_partition" "current" {}
