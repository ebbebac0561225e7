variable "name" {
  description = "The role's name."
  type        = string
}

variable "repository" {
  description = "As GitHub's tokens name it: OWNER@ID/NAME@ID, or OWNER/NAME if it is older than 15 July 2026 and was never renamed (README.md says how to ask)."
  type        = string

  validation {
    condition     = can(regex("^([A-Za-z0-9-]+/[A-Za-z0-9._-]+|[A-Za-z0-9-]+@[0-9]+/[A-Za-z0-9._-]+@[0-9]+)$", var.repository))
    error_message = "repository must be OWNER@ID/NAME@ID or OWNER/NAME, without a pattern: whoever else fits a pattern would get the role."
  }
}

variable "environments" {
  description = "GitHub environments whose jobs may take the role. Protect them by reviewers and branch rules."
  type        = list(string)

  validation {
    condition     = length(var.environments) > 0 && alltrue([for environment in var.environments : can(regex("^[A-Za-z0-9_-]+$", environment))])
    error_message = "environments must be names of GitHub environments, without a pattern."
  }
}

variable "policies" {
  description = "By name: what the role may do, as policy documents."
  type        = map(string)
}
