# AWS trusts GitHub's signature on a workflow's token; the roles say whose. AWS checks GitHub's certificate by itself.
resource "aws_iam_openid_connect_provider" "github" {
  url            = "https://token.actions.githubusercontent.com"
  client_id_list = ["sts.amazonaws.com"]
}

# Pushes images. Production never builds: it is not among the environments.
module "push" {
  source = "../modules/github"

  name         = "prefect-platform-push"
  repository   = var.github_repository
  environments = var.push_environments
  policies = {
    push = jsonencode({
      Version = "2012-10-17"
      Statement = [
        { Effect = "Allow", Action = "ecr:GetAuthorizationToken", Resource = "*" }, # the action knows no resources
        {
          Effect = "Allow"
          Action = [
            "ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:CompleteLayerUpload", "ecr:DescribeImages",
            "ecr:GetDownloadUrlForLayer", "ecr:InitiateLayerUpload", "ecr:PutImage", "ecr:UploadLayerPart",
          ]
          Resource = [for repository in aws_ecr_repository.this : repository.arn]
        },
      ]
    })
  }
}
