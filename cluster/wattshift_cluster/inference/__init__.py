"""The demo's inference service, and the load on it and on users' own: one open loop, two faces.

minilm      the model, written on the array API
app         the model behind HTTP on Ray Serve
arrivals    when requests come: steady, by chance, in bursts, or as a trace says
traces      public traces of requests and of rates, read from their files
httplink    the least HTTP client that a load generator needs
open_loop   sends what is due when it is due
asking      what is asked, and what is made of the answers: any service, or an LLM
load        the demo's crowd: a log of each request
user_load   `wattshift load`, from what was asked for to its figures
load_report what a load came to
"""
