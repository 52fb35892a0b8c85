package sandbox

// defaultPSAs are those of a Config that names none. Nothing in them exists.
func defaultPSAs() []PSA {
	return []PSA{
		{
			ID: "lantern", Name: "Lantern PSA", Currency: "EUR",
			Services: []PSAService{
				{"backup", "Backup", "4.50"}, {"m365-backup", "Microsoft 365 Backup", "2.20"}, {"edr", "Endpoint Detection and Response", "5.75"},
				{"rmm", "Remote Monitoring, per Agent", "3.10"}, {"storage", "Storage, per GB", "0.08"}, {"support", "Premium Support", "49.00"},
			},
			Companies: []Company{
				{"miller", "Miller Ltd", "Managed IT 2026", []ContractLine{{"backup", "40"}, {"storage", "500"}, {"support", "1"}}},
				{"alder", "Alder Dental", "Managed IT 2026", []ContractLine{{"backup", "12"}, {"m365-backup", "20"}, {"edr", "22"}}},
				{"birch", "Birch Logistics", "Backup only", []ContractLine{{"backup", "85"}, {"storage", "2400"}}},
				{"cedar", "Cedar Legal", "Managed security", []ContractLine{{"edr", "31"}, {"rmm", "31"}, {"support", "1"}}},
				{"dune", "Dune Bakery", "Managed IT 2026", []ContractLine{{"backup", "6"}, {"rmm", "7"}}},
			},
		},
		{
			ID: "tidewater", Name: "Tidewater Desk", Currency: "USD",
			Services: []PSAService{
				{"100", "Server and workstation protection", "9.00"}, {"110", "Cloud protection", "3.00"},
				{"200", "Security operations", "14.00"}, {"300", "Managed endpoint", "22.00"},
			},
			Companies: []Company{
				{"1001", "Elm Architects", "Gold agreement", []ContractLine{{"100", "18"}, {"110", "18"}, {"300", "18"}}},
				{"1002", "Fjord Clinic", "Silver agreement", []ContractLine{{"100", "44"}, {"200", "44"}}},
				{"1003", "Grove Motors", "Bronze agreement", []ContractLine{{"300", "9"}}},
				{"1004", "Miller Ltd", "Gold agreement", []ContractLine{{"100", "40"}, {"300", "38"}}},
			},
		},
		{
			ID: "marble", Name: "Marble Manage", Currency: "GBP",
			Services: []PSAService{
				{"BDR", "Backup and recovery", "6.25"}, {"MAIL", "Mail Filter", "1.40"}, {"SAT", "Security Awareness Training", "1.90"},
			},
			Companies: []Company{
				{"HEATH", "Heath Foods", "Annual", []ContractLine{{"BDR", "15"}, {"MAIL", "60"}}},
				{"IRIS", "Iris Media", "Monthly", []ContractLine{{"MAIL", "25"}, {"SAT", "25"}}},
				{"KESTREL", "Kestrel Optics", "Annual", []ContractLine{{"BDR", "3"}}},
			},
		},
	}
}
