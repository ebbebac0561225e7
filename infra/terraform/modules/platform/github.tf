# What a release may do in this environment, from GitHub: roll.py (migrate, then the services). Terraform is run by people.

module "github" {
  source = "../github"

  name         = "${local.name}-deploy"
  repository   = var.github.repository
  environments = [coalesce(var.github.environment, var.environment)]
  policies = merge(
    {
      # The deploy's own way in: PREFECT_API_AUTH_STRING.
      api = jsonencode({
        Version = "2012-10-17"
        Statement = [
          { Effect = "Allow", Action = "secretsmanager:GetSecretValue", Resource = local.auth_secret },
          { Effect = "Allow", Action = "kms:Decrypt", Resource = aws_kms_key.this.arn },
        ]
      })
    },
    local.ecs ? { roll = local.roll } : { cluster = local.describe_cluster },
  )
}

locals {
  family_arns = "arn:${data.aws_partition.current.partition}:ecs:${data.aws_region.current.name}:${data.aws_caller_identity.current.account_id}:task-definition/${local.name}-*"

  roll = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect   = "Allow"
        Action   = ["ecs:DescribeTaskDefinition"]
        Resource = "*" # it knows no resources
      },
      {
        Effect    = "Allow"
        Action    = "ecs:RunTask"
        Resource  = local.family_arns
        Condition = { ArnEquals = { "ecs:cluster" = module.cluster.arn } }
      },
      {
        Effect    = "Allow"
        Action    = ["ecs:UpdateService", "ecs:DescribeServices", "ecs:DescribeTasks", "ecs:ListServices"]
        Resource  = "*"
        Condition = { ArnEquals = { "ecs:cluster" = module.cluster.arn } }
      },
      {
        Effect    = "Allow"
        Action    = "iam:PassRole"
        Resource  = flatten([for service in module.service : service.role_arns])
        Condition = { StringEquals = { "iam:PassedToService" = "ecs-tasks.amazonaws.com" } }
      },
    ]
  })

  describe_cluster = jsonencode({
    Version   = "2012-10-17"
    Statement = [{ Effect = "Allow", Action = "eks:DescribeCluster", Resource = module.cluster.arn }]
  })
}

# In the cluster: whatever the group is bound to, which is the namespace's ClusterRole admin (README.md). Not by EKS' own policies:
# AmazonEKSEditPolicy has no Roles, and with AmazonEKSAdminPolicy Kubernetes still refuses to make one (aws/containers-roadmap#2682).
resource "aws_eks_access_entry" "github" {
  count = local.ecs ? 0 : 1

  cluster_name      = module.cluster.name
  principal_arn     = module.github.role_arn
  kubernetes_groups = ["${local.name}-deploy"]

  depends_on = [module.cluster]
}
