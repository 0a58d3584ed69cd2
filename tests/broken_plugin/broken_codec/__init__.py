raise ImportError("this plugin never works")
