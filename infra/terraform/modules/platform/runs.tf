# Roles and log of runs that are not in a worker of ECS: work pools of type ecs, and all on EKS.

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

# The API's password comes to a run as a secret (prefect_api_auth_string_secret_arn of the pool).
resource "aws_iam_role_policy" "run_execution" {
  name = "secrets"
  role = aws_iam_role.run_execution.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      { Effect = "Allow", Action = "secretsmanager:GetSecretValue", Resource = local.auth_secret },
      { Effect = "Allow", Action = "kms:Decrypt", Resource = aws_kms_key.this.arn },
    ]
  })
}

resource "aws_cloudwatch_log_group" "runs" {
  #checkov:skip=CKV_AWS_338:How long is var.log_retention_days; production refuses less than a year.
  name              = "/${local.name}/runs"
  retention_in_days = var.log_retention_days
  kms_key_id        = aws_kms_key.this.arn
}

# EKS: pods of these service accounts get the role by Pod Identity, without a key and without an annotation. Flows of a process pool
# run in their worker's pod, whose account has the name of its release (infra/helm/releases.py).
locals {
  process_workers = [for key, pool in var.work_pools : "prefect-worker-${key}" if pool.type == "process"]
}

resource "aws_eks_pod_identity_association" "run" {
  for_each = local.ecs ? [] : setunion(var.kubernetes_service_accounts, local.process_workers)

  cluster_name    = module.cluster.name
  namespace       = local.name
  service_account = each.key
  role_arn        = aws_iam_role.run.arn

  depends_on = [module.cluster]
}
