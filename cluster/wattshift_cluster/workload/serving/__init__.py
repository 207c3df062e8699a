"""Services: Ray Serve applications of anybody's, scaled within watts.

services service            all of them; one of them
building builds app_watts   how one is built, in a task of Ray, and where its watts are laid
serve_link                  Ray Serve's own calls        room   where a replica finds watts
routing                     what Serve's router gets, so that a full replica stops no service
allowances scaling_policy   what Serve's own scaling is allowed; the policy inside Serve
evictions hand_over         ending a replica without a failed request; a GPU's memory
service_stats stats_desk serve_metrics   how they do, and who is asked for it
"""
