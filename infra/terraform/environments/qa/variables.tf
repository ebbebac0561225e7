variable "account_id" {
  description = "The account this environment is in. Any other is refused, whatever credentials are at hand."
  type        = string
}

variable "region" {
  type = string
}

variable "platform" {
  description = "ecs: all of Prefect on ECS and Fargate. eks: a Kubernetes cluster for infra/helm."
  type        = string
  default     = "ecs"
}

variable "domain" {
  type = string
}

variable "zone_id" {
  type = string
}

variable "images" {
  description = "By digest, or in QA by tag."
  type        = object({ server = string, worker = string, flows = optional(string) })
}

variable "internal" {
  type    = bool
  default = true
}

variable "allowed_cidrs" {
  type = list(string)
}

variable "open_to_the_internet" {
  type    = bool
  default = false
}

variable "cluster_endpoint_cidrs" {
  type    = list(string)
  default = []
}

variable "alarm_emails" {
  type = set(string)
}

variable "github" {
  type = object({ repository = string, environment = optional(string) })
}

variable "result_storage_block" {
  type    = string
  default = null
}

variable "secrets_version" {
  type    = number
  default = 1
}

variable "generate_secrets" {
  type    = bool
  default = true
}

variable "given_secrets" {
  type      = map(string)
  default   = null
  ephemeral = true
  sensitive = true
}
