output "names" {
  value = sort(keys(local.alarms))
}
