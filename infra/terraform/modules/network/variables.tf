variable "name" {
  description = "Prefix of every name."
  type        = string
}

variable "cidr" {
  description = "The VPC's addresses, /16 to /19: a load balancer needs public subnets of /27 or larger."
  type        = string

  validation {
    condition     = can(cidrnetmask(var.cidr)) && try(tonumber(split("/", var.cidr)[1]) >= 16 && tonumber(split("/", var.cidr)[1]) <= 19, false)
    error_message = "cidr must be an IPv4 network of /16 to /19, such as 10.40.0.0/16."
  }
}

variable "zones" {
  description = "Letters of the region's availability zones to spread over. Subnets keep their place in the list: add at its end."
  type        = list(string)

  validation {
    condition     = contains([2, 3], length(distinct(var.zones))) && alltrue([for letter in var.zones : can(regex("^[a-z]$", letter))])
    error_message = "zones must be two or three letters, such as [\"a\", \"b\"]: a load balancer and a Multi-AZ database need two zones."
  }
}

variable "nat" {
  description = "single: one NAT gateway for all zones; per_zone: one each, so that a lost zone takes nothing else with it."
  type        = string

  validation {
    condition     = contains(["single", "per_zone"], var.nat)
    error_message = "nat must be single or per_zone."
  }
}

variable "interface_endpoints" {
  description = "AWS services to reach without NAT, such as ecr.api, ecr.dkr, logs, secretsmanager. Each costs by the hour and zone."
  type        = set(string)
  default     = []
}

variable "log_retention_days" {
  type = number
}

variable "kms_key_arn" {
  type = string
}
