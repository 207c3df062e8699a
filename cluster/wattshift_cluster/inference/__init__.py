"""The demo's inference service: a sentence encoder, its Serve application, and bursty clients.

minilm     the model, written on the array API
arrivals   when requests come: seeded bursts, or a real trace
load       sends them and logs what became of each
app        the model behind HTTP on Ray Serve
"""
