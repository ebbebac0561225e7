variable "name" {
  description = "Prefix of every name, and the ECS cluster's."
  type        = string
}

variable "emails" {
  description = "Who is told."
  type        = set(string)

  validation {
    condition     = alltrue([for email in var.emails : can(regex("^[^@ ]+@[^@ ]+$", email))])
    error_message = "emails must be e-mail addresses."
  }
}

variable "database_identifier" {
  type = string
}

variable "database_free_bytes" {
  description = "Less free storage than this is an alarm."
  type        = number
}

variable "database_connections" {
  description = "More connections than this are an alarm."
  type        = number
}

variable "cache_nodes" {
  type = list(string)
}

variable "load_balancer" {
  description = "null: none here."
  type        = object({ arn_suffix = string, target_group_arn_suffix = string, replicas = number })
}

variable "services" {
  description = "ECS: how many tasks each must have at least."
  type        = map(number)
}

variable "kms_key_arn" {
  type = string
}
