variable "name" {
  description = "Prefix of every name."
  type        = string
}

variable "generation" {
  description = "Raise it to make new passwords."
  type        = number
  default     = 1
}

variable "generate" {
  description = "false: take the passwords of `given`. For moving in with those of an existing installation, and for tests (mocked providers know no ephemeral resources)."
  type        = bool
  default     = true
}

variable "given" {
  description = "database-password, redis-token, api-auth-string (user:password). Letters and digits, as they become parts of URLs."
  type        = map(string)
  default     = null
  ephemeral   = true
  sensitive   = true
}

variable "recovery_days" {
  description = "How long a deleted secret can be restored. 0 deletes at once, so that an environment can be made again under its name."
  type        = number
}

variable "kms_key_arn" {
  type = string
}
