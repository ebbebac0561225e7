variable "environment" {
  description = "Its name: qa, prod. Every name begins with prefect-<environment>."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,11}$", var.environment))
    error_message = "environment must be small letters, digits and dashes, twelve at most: AWS's names are short."
  }
}

variable "production" {
  description = "true: refuses to be without a standby, backups, protection, digests; keeps what is deleted for a while."
  type        = bool
}

variable "platform" {
  description = "ecs or eks."
  type        = string
}

variable "domain" {
  description = "Where people and deploys find Prefect, such as prefect.example.com."
  type        = string

  validation {
    condition     = can(regex("^([a-z0-9]([a-z0-9-]*[a-z0-9])?\\.)+[a-z]{2,}$", var.domain))
    error_message = "domain must be a host name, without https:// and without a path."
  }
}

variable "zone_id" {
  description = "The Route 53 zone that domain is in."
  type        = string
}

variable "images" {
  description = "infra/images: server, worker, flows, by digest (REPOSITORY@sha256:...). The flows image only where environments/*.yaml says source: image."
  type        = object({ server = string, worker = string, flows = optional(string) })

  validation {
    condition     = !var.production || alltrue([for image in values(var.images) : image == null || can(regex("@sha256:[0-9a-f]{64}$", image))])
    error_message = "Production takes images by digest, REPOSITORY@sha256:<64 hex>: a tag can move."
  }
}

variable "worker_image" {
  description = "worker: the code is fetched. flows: it is in the image (source: image)."
  type        = string
  default     = "worker"

  validation {
    condition     = var.worker_image == "worker" || (var.worker_image == "flows" && var.images.flows != null)
    error_message = "worker_image must be worker or flows, and with flows images.flows must be given."
  }
}

variable "work_pools" {
  description = "By key, as in environments/*.yaml: each gets a worker."
  type        = map(object({ name = string, type = string }))

  validation {
    condition     = alltrue([for key, pool in var.work_pools : can(regex("^[a-z0-9-]{1,20}$", key))])
    error_message = "Keys of work_pools must be small letters, digits and dashes, twenty at most: they become names of services."
  }
}

variable "worker" {
  description = "Size of each worker's task. Work pools of type process run their flows in it. spot: AWS may end runs at two minutes' notice."
  type        = object({ cpu = number, memory = number, count = number, spot = optional(bool, false) })
}

variable "worker_sizes" {
  description = "By key of a work pool: another size than that."
  type        = map(object({ cpu = optional(number), memory = optional(number) }))
  default     = {}

  validation {
    condition     = length(setsubtract(keys(var.worker_sizes), keys(var.work_pools))) == 0
    error_message = "worker_sizes names a work pool that there is none of: ${join(", ", setsubtract(keys(var.worker_sizes), keys(var.work_pools)))}."
  }
}

variable "api" {
  type = object({ cpu = number, memory = number, count = number, count_max = optional(number) })

  validation {
    condition     = var.api.count >= (var.production ? 2 : 1)
    error_message = "api.count must be 1 or more, in production 2 or more: one replica serves while the other is replaced."
  }
}

variable "services" {
  description = "Prefect's background services: one task."
  type        = object({ cpu = number, memory = number })
}

variable "database" {
  type = object({
    instance_class      = string
    storage_gb          = number
    max_storage_gb      = number
    multi_az            = bool
    backup_days         = number
    deletion_protection = bool
    connections_alarm   = number
  })
}

variable "warehouse_on_database" {
  description = "ECS: workers may connect to PostgreSQL, because the flows' warehouse is another database of this instance."
  type        = bool
  default     = false
}

variable "cache" {
  type = object({ node_type = string, nodes = number })
}

variable "results_days" {
  type = number
}

variable "result_storage_block" {
  description = "Prefect block where flow runs keep their results: remote-file-system/results, once infra/storage/results.py has made it. null: in the worker's memory, gone with it."
  type        = string
  default     = null
}

variable "internal" {
  description = "true: only from the VPC and what is connected to it. false: from allowed_cidrs over the internet."
  type        = bool
}

variable "allowed_cidrs" {
  type = list(string)
}

variable "open_to_the_internet" {
  type    = bool
  default = false
}

variable "cidr" {
  type = string
}

variable "zones" {
  type = list(string)
}

variable "nat" {
  type = string

  validation {
    condition     = !var.production || var.nat == "per_zone"
    error_message = "Production needs nat = per_zone: with a single gateway a lost zone takes every worker's way out with it."
  }
}

variable "interface_endpoints" {
  type    = set(string)
  default = []
}

variable "log_retention_days" {
  type = number

  validation {
    condition     = contains([30, 60, 90, 120, 150, 180, 365, 400, 545, 731], var.log_retention_days)
    error_message = "log_retention_days must be one of CloudWatch's: 30, 60, 90, 120, 150, 180, 365, 400, 545, 731."
  }

  validation {
    condition     = !var.production || var.log_retention_days >= 365
    error_message = "Production keeps its logs for a year or longer."
  }
}

variable "alarm_emails" {
  type = set(string)

  validation {
    condition     = !var.production || length(var.alarm_emails) > 0
    error_message = "Production's alarms must reach somebody: alarm_emails."
  }
}

variable "github" {
  description = "Whose workflows deploy here: OWNER@ID/NAME@ID (or OWNER/NAME for older repositories, README.md), and the GitHub environment if it is not called as this one."
  type        = object({ repository = string, environment = optional(string) })
}

variable "cpu_architecture" {
  type    = string
  default = "X86_64"
}

variable "kubernetes_version" {
  type    = string
  default = "1.33"
}

variable "cluster_endpoint_cidrs" {
  type    = list(string)
  default = []
}

variable "kubernetes_service_accounts" {
  description = "EKS: service accounts in the namespace prefect-<environment> whose pods may use the buckets, besides the workers of process pools. Those of infra/helm/chart."
  type        = set(string)
  default     = ["prefect-jobs", "prefect-platform-backup"]
}

variable "secrets_version" {
  description = "Raise it to make new passwords."
  type        = number
  default     = 1
}

variable "generate_secrets" {
  description = "false: take those of given_secrets. For moving in with the passwords of an existing installation, and for tests."
  type        = bool
  default     = true
}

variable "given_secrets" {
  description = "database-password, redis-token, api-auth-string (user:password)."
  type        = map(string)
  default     = null
  ephemeral   = true
  sensitive   = true

  validation {
    condition     = var.generate_secrets || try(length(setintersection(keys(var.given_secrets), ["database-password", "redis-token", "api-auth-string"])), 0) == 3
    error_message = "With generate_secrets = false, given_secrets must hold database-password, redis-token and api-auth-string."
  }
}
