variable "name" {
  description = "Prefix of every name."
  type        = string
}

variable "results_days" {
  description = "When results of flow runs go. Longer than any run waits for another's result, and than its cache is to last."
  type        = number

  validation {
    condition     = var.results_days >= 7
    error_message = "results_days must be 7 or more: a retry or a cached task of last week still looks for its result."
  }
}

variable "archive_cold_days" {
  description = "When the archive moves to colder storage. It never expires."
  type        = number
  default     = 90
}

variable "force_destroy" {
  description = "true: terraform destroy takes the buckets with all that is in them."
  type        = bool
}

variable "log_retention_days" {
  type = number
}

variable "kms_key_arn" {
  type = string
}
