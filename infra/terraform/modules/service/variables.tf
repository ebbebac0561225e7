variable "name" {
  description = "api, services, migrate, worker-<pool>, exporter."
  type        = string
}

variable "image" {
  type = string
}

variable "command" {
  type = list(string)
}

variable "cpu" {
  description = "In 1024ths of a vCPU."
  type        = number
}

variable "memory" {
  description = "In MiB."
  type        = number

  # docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html
  validation {
    condition = contains(lookup({
      256  = [512, 1024, 2048]
      512  = range(1024, 4097, 1024)
      1024 = range(2048, 8193, 1024)
      2048 = range(4096, 16385, 1024)
      4096 = range(8192, 30721, 1024)
    }, var.cpu, []), var.memory)
    error_message = "Fargate has no task of ${var.cpu} CPU units with ${var.memory} MiB. 256: 512, 1024, 2048. 512: 1024 to 4096. 1024: 2048 to 8192. 2048: 4096 to 16384. 4096: 8192 to 30720, in steps of 1024."
  }
}

variable "cpu_architecture" {
  description = "X86_64 or ARM64: what the images were built for."
  type        = string
  default     = "X86_64"

  validation {
    condition     = contains(["X86_64", "ARM64"], var.cpu_architecture)
    error_message = "cpu_architecture must be X86_64 or ARM64."
  }
}

variable "tmp_mb" {
  description = "Size of /tmp, which is the home folder too. Nothing else can be written to. Part of the task's memory."
  type        = number
  default     = 256

  validation {
    condition     = var.tmp_mb <= var.memory / 2
    error_message = "tmp_mb must be half of memory at most: what is written to /tmp takes memory from the program."
  }
}

variable "count_min" {
  description = "0: no service, the task only runs when it is called."
  type        = number
}

variable "count_max" {
  description = "Above count_min: more tasks when their CPU is busy."
  type        = number
  default     = null

  validation {
    condition     = coalesce(var.count_max, var.count_min) >= var.count_min
    error_message = "count_max must not be below count_min."
  }
}

variable "singleton" {
  description = "The old task ends before the new one starts."
  type        = bool
  default     = false
}

variable "spot" {
  description = "Spare capacity at about a third of the price, taken away at two minutes' notice."
  type        = bool
  default     = false
}

variable "stop_timeout" {
  description = "Seconds to finish in before the task is killed, 120 at most."
  type        = number
  default     = 30
}

variable "environment" {
  type = map(string)
}

variable "secrets" {
  description = "By environment variable: what of which secret, as arn or arn:key::."
  type        = map(string)
}

variable "secret_arns" {
  description = "The secrets named there."
  type        = list(string)
}

variable "health" {
  description = "What infra/images/health.py is asked inside the container. Empty: the process is its own proof."
  type        = list(string)
  default     = []
}

variable "port" {
  type    = number
  default = null
}

variable "balanced" {
  description = "Behind a load balancer: target_group_arn is set."
  type        = bool
  default     = false
}

variable "target_group_arn" {
  type    = string
  default = null
}

variable "discoverable" {
  description = "Known as <name>.<namespace> in the VPC: namespace_id is set."
  type        = bool
  default     = false
}

variable "namespace_id" {
  type    = string
  default = null
}

variable "task_policies" {
  description = "By name: what the code may do, as policy documents."
  type        = map(string)
  default     = {}
}

variable "cluster_name" {
  type = string
}

variable "cluster_arn" {
  type = string
}

variable "subnet_ids" {
  type = list(string)
}

variable "security_group_id" {
  type = string
}

variable "log_retention_days" {
  type = number
}

variable "kms_key_arn" {
  type = string
}
