"""The look-ahead plan of a running controller, made by a process of its own.

    history, feeds, state ─▶ ahead ─▶ process ═▶ child ═▶ feed ─▶ the core, and views for people

feed                      asks now and then, tells the core, says what is wrong
ahead                     what a plan is made from: curves and prices (what is foreseen), demands
                          (what is asked), machines (what can follow), history (the past of it all)
process child wire        the planner as the controller holds it, as a program, and how they speak
views off                 what is shown of a plan, and where there is none
"""
