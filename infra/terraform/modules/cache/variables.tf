variable "name" {
  description = "Name of the replication group, and prefix of every other name."
  type        = string

  validation {
    condition     = length(var.name) <= 40
    error_message = "ElastiCache takes names of 40 characters at most."
  }
}

variable "production" {
  description = "Refuses what production must not be without."
  type        = bool
}

variable "node_type" {
  type = string
}

variable "nodes" {
  description = "1, or a primary with replicas in other zones that take over."
  type        = number

  validation {
    condition     = var.nodes >= (var.production ? 2 : 1) && var.nodes <= 6
    error_message = "nodes must be 1 to 6, in production 2 to 6: a replica takes over when the primary is lost."
  }
}

variable "snapshot_days" {
  type    = number
  default = 1
}

variable "token" {
  type      = string
  sensitive = true
}

variable "vpc_id" {
  type = string
}

variable "subnet_ids" {
  type = list(string)
}

variable "client_security_group_ids" {
  description = "By a name for each: who may connect."
  type        = map(string)
}

variable "kms_key_arn" {
  type = string
}
