variable "name" {
  description = "Name of the instance, and prefix of every other name."
  type        = string
}

variable "production" {
  description = "Refuses what production must not be without, and keeps a last snapshot."
  type        = bool
}

variable "engine_version" {
  description = "PostgreSQL's major version; minor ones come by themselves. Not above pg_dump's in the images, which backs the warehouse up: 15 on Debian bookworm."
  type        = string
  default     = "15"

  validation {
    condition     = try(tonumber(split(".", var.engine_version)[0]) >= 14, false)
    error_message = "engine_version must be PostgreSQL 14 or newer: Prefect 3 needs that."
  }
}

variable "instance_class" {
  type = string
}

variable "multi_az" {
  type = bool

  validation {
    condition     = var.multi_az || !var.production
    error_message = "Production needs a standby in another zone: multi_az = true."
  }
}

variable "deletion_protection" {
  type = bool

  validation {
    condition     = var.deletion_protection || !var.production
    error_message = "Production's database must be protected from deletion: deletion_protection = true."
  }
}

variable "backup_days" {
  description = "How far back the database can be restored, to the second."
  type        = number

  validation {
    condition     = var.backup_days >= (var.production ? 7 : 1) && var.backup_days <= 35
    error_message = "backup_days must be 1 to 35, in production 7 to 35."
  }
}

variable "storage_gb" {
  type = number

  validation {
    condition     = var.storage_gb >= 20
    error_message = "storage_gb must be 20 or more: gp3's smallest volume."
  }
}

variable "max_storage_gb" {
  description = "The volume grows by itself up to here."
  type        = number

  validation {
    condition     = var.max_storage_gb >= ceil(var.storage_gb * 1.1)
    error_message = "max_storage_gb must be at least a tenth above storage_gb, or RDS refuses to grow the volume."
  }
}

variable "password" {
  type      = string
  ephemeral = true
  sensitive = true
}

variable "password_generation" {
  description = "The password is written when this is raised."
  type        = number
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

variable "log_retention_days" {
  type = number
}

variable "kms_key_arn" {
  type = string
}
