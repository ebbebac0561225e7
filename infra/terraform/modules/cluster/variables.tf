variable "name" {
  description = "The cluster's name, and prefix of every other name."
  type        = string
}

variable "platform" {
  description = "ecs: ECS on Fargate, all of Prefect set up here. eks: a Kubernetes cluster (Auto Mode), to be filled by infra/helm."
  type        = string

  validation {
    condition     = contains(["ecs", "eks"], var.platform)
    error_message = "platform must be ecs or eks."
  }
}

variable "kubernetes_version" {
  type    = string
  default = "1.33"
}

variable "cluster_endpoint_cidrs" {
  description = "EKS: networks that may reach the Kubernetes API from outside the VPC. Empty: none."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for cidr in var.cluster_endpoint_cidrs : can(cidrnetmask(cidr)) && !endswith(cidr, "/0")])
    error_message = "cluster_endpoint_cidrs must be IPv4 networks, and not the whole internet."
  }
}

variable "vpc_id" {
  type = string
}

variable "private_subnet_ids" {
  type = list(string)
}

variable "log_retention_days" {
  type = number
}

variable "kms_key_arn" {
  type = string
}
