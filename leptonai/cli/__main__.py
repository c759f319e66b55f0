from leptonai.cli.main import main

main()
