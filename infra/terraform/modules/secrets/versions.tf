terraform {
  required_version = "~> 1.11"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.100"
      # The ephemeral resources have a provider of their own, the only one that tests cannot mock.
      configuration_aliases = [aws.passwords]
    }
  }
}
