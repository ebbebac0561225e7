output "platform" {
  description = "Addresses, names and ARNs that deploys, workers and people need. No secret among them."
  value       = module.platform
}
