variable "account_id" {
  description = "The account this is for. Any other is refused, whatever credentials are at hand."
  type        = string

  validation {
    condition     = can(regex("^[0-9]{12}$", var.account_id))
    error_message = "account_id must be twelve digits."
  }
}

variable "region" {
  type = string
}

variable "github_repository" {
  description = "OWNER@ID/NAME@ID, or OWNER/NAME for older repositories (README.md): whose workflows may push images."
  type        = string
}

variable "push_environments" {
  description = "GitHub environments whose jobs build and push images."
  type        = list(string)
  default     = ["dev", "qa"]

  validation {
    condition     = !contains(var.push_environments, "prod")
    error_message = "Production builds nothing: it runs the image that QA tried. Take prod out of push_environments."
  }
}

variable "pull_accounts" {
  description = "Other accounts that run these images."
  type        = list(string)
  default     = []
}

variable "images_kept" {
  type    = number
  default = 100
}
