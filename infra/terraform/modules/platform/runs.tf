# Roles and log of runs that have a container of their own: work pools of type ecs or kubernetes.

locals {
  pods = { ecs = "ecs-tasks.amazonaws.com", eks = "pods.eks.amazonaws.com" }
}

resource "aws_iam_role" "run" {
  name        = "${local.name}-run"
  description = "What flow runs in containers of their own may do"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = local.ecs ? ["sts:AssumeRole"] : ["sts:AssumeRole", "sts:TagSession"]
      Principal = { Service = local.pods[var.platform] }
    }]
  })
}

resource "aws_iam_role_policy" "run" {
  name   = "storage"
  role   = aws_iam_role.run.id
  policy = module.storage.policy
}

resource "aws_iam_role" "run_execution" {
  name = "${local.name}-run-execution"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ecs-tasks.amazonaws.com" }
    }]
  })
}

resource "aws_iam_role_policy_attachment" "run_execution" {
  role       = aws_iam_role.run_execution.name
  policy_arn = "arn:${data.aws_partition.current.partition}:iam::aws:policy/service-role/AmazonECSTaskExecutionRolePolicy"
}

resource "aws_cloudwatch_log_group" "runs" {
  #checkov:skip=CKV_AWS_338:How long is var.log_retention_days; production refuses less than a year.
  name              = "/${local.name}/runs"
  retention_in_days = var.log_retention_days
  kms_key_id        = aws_kms_key.this.arn
}

# EKS: pods of these service accounts get the role by Pod Identity, without a key and without an annotation.
resource "aws_eks_pod_identity_association" "run" {
  for_each = local.ecs ? [] : var.kubernetes_service_accounts

  cluster_name    = module.cluster.name
  namespace       = var.kubernetes_namespace
  service_account = each.key
  role_arn        = aws_iam_role.run.arn

  depends_on = [module.cluster]
}
