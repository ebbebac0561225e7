variable "name" {
  type = string

  validation {
    condition     = length("${var.name}-api") <= 32
    error_message = "Load balancers and target groups take names of 32 characters at most."
  }
}

variable "internal" {
  description = "true: reachable from the VPC and what is connected to it. false: from the internet, for allowed_cidrs."
  type        = bool
}

variable "allowed_cidrs" {
  description = "Networks that may connect."
  type        = list(string)

  validation {
    condition     = length(var.allowed_cidrs) > 0 && alltrue([for cidr in var.allowed_cidrs : can(cidrnetmask(cidr))])
    error_message = "allowed_cidrs must name IPv4 networks: without any nobody reaches the API."
  }

  validation {
    condition     = var.open_to_the_internet || !anytrue([for cidr in var.allowed_cidrs : endswith(cidr, "/0")])
    error_message = "allowed_cidrs would let the whole internet in. If that is meant (hosted CI runners have no fixed addresses), say open_to_the_internet = true."
  }
}

variable "open_to_the_internet" {
  type    = bool
  default = false
}

variable "requests_per_5_minutes" {
  description = "From one address, before it is blocked. Workers of this VPC don't come by here."
  type        = number
  default     = 20000
}

variable "deletion_protection" {
  type = bool
}

variable "domain" {
  type = string
}

variable "zone_id" {
  type = string
}

variable "certificate_arn" {
  type = string
}

variable "server_security_group_id" {
  type = string
}

variable "vpc_id" {
  type = string
}

variable "subnet_ids" {
  type = list(string)
}

variable "log_bucket" {
  type = string
}

variable "log_retention_days" {
  type = number
}

variable "kms_key_arn" {
  type = string
}
